import torch
import torch.nn as nn
import torchvision
import torchvision.transforms as transforms
from torch.utils.data import DataLoader
import matplotlib.pyplot as plt

input_size=28
hidden_size=64
num_layers=1
num_classes=10
batch_size=64
learning_rate=0.002
num_epochs=5

train_set=torchvision.datasets.MNIST(root='./data',train=True,transform=transforms.ToTensor(),download=True)
test_set=torchvision.datasets.MNIST(root='./data',train=False,transform=transforms.ToTensor(),download=True)
train_loader=DataLoader(train_set,batch_size=batch_size,shuffle=True,num_workers=0)
test_loader=DataLoader(test_set,batch_size=batch_size,shuffle=False,num_workers=0)

class ManualLSTMCell(nn.Module):
    def __init__(self,input_size,hidden_size):
        super(ManualLSTMCell,self).__init__()
        # one block per gate: [forget, input, candidate, output]
        self.weight=nn.Parameter(torch.Tensor(4,input_size+hidden_size,hidden_size))
        self.bias=nn.Parameter(torch.Tensor(4,1,hidden_size))
        nn.init.uniform_(self.weight,-0.1,0.1)
        nn.init.zeros_(self.bias)
    def forward(self,x,h_prev,c_prev):
        xh=torch.cat([x,h_prev],dim=1)
        xh4=xh.unsqueeze(0).repeat(4,1,1)             # 4 x B x (I+H)
        z=torch.bmm(xh4,self.weight)+self.bias        # 4 x B x H
        f=torch.sigmoid(z[0])
        i=torch.sigmoid(z[1])
        c_tilde=torch.tanh(z[2])
        o=torch.sigmoid(z[3])
        c_t=f*c_prev+i*c_tilde
        h_t=o*torch.tanh(c_t)
        return h_t,c_t

class ManualLSTMClassifier(nn.Module):
    def __init__(self,input_size,hidden_size,num_classes):
        super(ManualLSTMClassifier,self).__init__()
        self.hidden_size=hidden_size
        self.cell=ManualLSTMCell(input_size,hidden_size)
        self.fc=nn.Linear(hidden_size,num_classes)
    def forward(self,x):
        h=torch.zeros(x.size(0),self.hidden_size,device=x.device)
        c=torch.zeros(x.size(0),self.hidden_size,device=x.device)
        hs=[]
        for t in range(x.size(1)):
            h,c=self.cell(x[:,t,:],h,c)
            hs.append(h)
        hs=torch.stack(hs,dim=1)      # B x 28 x H
        return self.fc(hs[:,-1,:])

device=torch.device("cuda" if torch.cuda.is_available() else "cpu")
model=ManualLSTMClassifier(input_size,hidden_size,num_classes).to(device)
criterion=nn.CrossEntropyLoss()
optimizer=torch.optim.Adam(model.parameters(),lr=learning_rate)

def train_one_epoch(epoch):
    model.train()
    for i,(images,labels) in enumerate(train_loader):
        images=images.reshape(-1,28,28).to(device)
        labels=labels.to(device)
        outputs=model(images)
        loss=criterion(outputs,labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (i+1)%100==0:
            print("Epoch [%d/%d], Step [%d/%d], Loss: %.4f"%(epoch+1,num_epochs,i+1,len(train_loader),loss.item()))

def test():
    model.eval()
    correct=0
    total=0
    with torch.no_grad():
        for images,labels in test_loader:
            images=images.reshape(-1,28,28).to(device)
            labels=labels.to(device)
            predicted=model(images).argmax(dim=1)
            total+=labels.size(0)
            correct+=(predicted==labels).sum().item()
    return 100*correct/total

for epoch in range(num_epochs):
    train_one_epoch(epoch)
print("Test Accuracy: %.2f%%"%test())

plt.figure(figsize=(12,5))
count=0
digit=0
idx=0
while digit<10:
    image,label=test_set[idx]
    idx+=1
    if label!=digit:
        continue
    with torch.no_grad():
        pred=model(image.reshape(-1,28,28).to(device)).argmax(dim=1).item()
    plt.subplot(2,5,digit+1)
    plt.imshow(image.reshape(28,28).numpy(),cmap='gray')
    plt.title("True:%d Pred:%d"%(label,pred))
    plt.axis('off')
    digit+=1
plt.show()
